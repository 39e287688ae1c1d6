"""`python -m postprior`: the command line."""

from postprior.pipelines.commands import main

if __name__ == "__main__":
    main()
