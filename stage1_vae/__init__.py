"""Stage 1: multimodal variational autoencoders. Tensors in, distributions out."""

if __name__ != "postprior.stage1_vae":
    raise ImportError(f"{__name__} cannot be imported by this name: import postprior.stage1_vae")
