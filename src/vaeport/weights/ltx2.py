"""Key layouts of LTX-2's video VAE: Diffusers, and the official single files, which hold other models too."""

from vaeport.mapping.rules import Layout
from vaeport.weights.ltx_tables import (
    DIFFUSERS_RULES,
    FOLDED_ENCODER,
    OFFICIAL_ENDS,
    STATISTICS_DROPS,
    UNFOLDED_DECODER,
)

DIFFUSERS = Layout(name="diffusers", rules=DIFFUSERS_RULES)

OFFICIAL = Layout(
    name="ltx2-official",
    rules=(*FOLDED_ENCODER, *UNFOLDED_DECODER, *OFFICIAL_ENDS),
    prefixes=("vae.", ""),
    drops=STATISTICS_DROPS,
)

LAYOUTS = (DIFFUSERS, OFFICIAL)
