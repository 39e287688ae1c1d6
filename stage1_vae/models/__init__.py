"""The multimodal autoencoders, one per module, and the registry of their names."""

from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models.cmvae import CMVAE
from postprior.stage1_vae.models.crmvae import CRMVAE
from postprior.stage1_vae.models.dmvae import DMVAE
from postprior.stage1_vae.models.jmvae import JMVAE
from postprior.stage1_vae.models.jnf import JNF
from postprior.stage1_vae.models.mhvae import MHVAE
from postprior.stage1_vae.models.mmvae import MMVAE
from postprior.stage1_vae.models.mmvaeplus import MMVAEPlus
from postprior.stage1_vae.models.mopoe import MoPoE
from postprior.stage1_vae.models.mvae import MVAE
from postprior.stage1_vae.models.mvtcae import MVTCAE
from postprior.stage1_vae.models.nexus import Nexus
from postprior.stage1_vae.models.telbo import TELBO
from postprior.stage1_vae.models.unimodal import UnimodalVAE

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
    "unimodal": UnimodalVAE,
}
