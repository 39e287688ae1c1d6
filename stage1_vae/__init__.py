"""Stage 1: multimodal variational autoencoders. They map tensors to distributions."""

if __name__ != "postprior.stage1_vae":
    raise ImportError(f"{__name__} cannot be imported by this name: import postprior.stage1_vae")
