"""The multimodal autoencoders, one a file."""

from stage1_vae.model import MultimodalVAE
from stage1_vae.models.cmvae import CMVAE
from stage1_vae.models.crmvae import CRMVAE
from stage1_vae.models.dmvae import DMVAE
from stage1_vae.models.jmvae import JMVAE
from stage1_vae.models.jnf import JNF
from stage1_vae.models.mhvae import MHVAE
from stage1_vae.models.mmvae import MMVAE
from stage1_vae.models.mmvaeplus import MMVAEPlus
from stage1_vae.models.mopoe import MoPoE
from stage1_vae.models.mvae import MVAE
from stage1_vae.models.mvtcae import MVTCAE
from stage1_vae.models.nexus import Nexus
from stage1_vae.models.telbo import TELBO

MODELS: dict[str, type[MultimodalVAE]] = {
    "mvae": MVAE,
    "mmvae": MMVAE,
    "mopoe": MoPoE,
    "mvtcae": MVTCAE,
    "crmvae": CRMVAE,
    "dmvae": DMVAE,
    "mmvaeplus": MMVAEPlus,
    "cmvae": CMVAE,
    "jmvae": JMVAE,
    "jnf": JNF,
    "telbo": TELBO,
    "nexus": Nexus,
    "mhvae": MHVAE,
}
