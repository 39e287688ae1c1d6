"""Run the command line by `python -m postprior`."""

from postprior.pipelines.commands import main

if __name__ == "__main__":
    main()
