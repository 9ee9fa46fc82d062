"""One VAE on several ranks (`torchrun`): each works on a stripe, and the result is that of one device.

    ranks = Ranks()                                  # the default process group, or a DeviceMesh
    video = decode_sharded(vae, z, ranks)            # on rank 0

No layer is approximated: what one looks at beyond its stripe is fetched from the neighbours, layer by layer.
"""

from vaeport.runtime.shards.ranks import Ranks
from vaeport.runtime.shards.run import Stripe, clips, decode_sharded, encode_sharded
from vaeport.runtime.shards.tree import partition, sharded

__all__ = ["Ranks", "Stripe", "clips", "decode_sharded", "encode_sharded", "partition", "sharded"]
