"""The multimodal autoencoders, one a file."""

from stage1_vae.model import MultimodalVAE
from stage1_vae.models.cmvae import CMVAE
from stage1_vae.models.dmvae import DMVAE
from stage1_vae.models.mmvae import MMVAE
from stage1_vae.models.mmvaeplus import MMVAEPlus
from stage1_vae.models.mopoe import MoPoE
from stage1_vae.models.mvae import MVAE
from stage1_vae.models.mvtcae import MVTCAE

MODELS: dict[str, type[MultimodalVAE]] = {
    "mvae": MVAE,
    "mmvae": MMVAE,
    "mopoe": MoPoE,
    "mvtcae": MVTCAE,
    "dmvae": DMVAE,
    "mmvaeplus": MMVAEPlus,
    "cmvae": CMVAE,
}
