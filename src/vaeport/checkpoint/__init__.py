"""Weight files on disk and on the Hub, read without trust and without copies, written whole or not at all.

`open_checkpoint` lists a safetensors file, a pickle, a shard index or a component folder from headers alone and maps
its tensors on demand; `summarise` turns that into the data behind `vaeport inspect`; `read_config` reads the
`config.json` beside the weights; `resolve` finds them locally or fetches them; `save_folder` writes them in Diffusers'
layout. Nothing here knows any model: names are read and written as they stand.
"""

from vaeport.checkpoint.config import read_config
from vaeport.checkpoint.hub import resolve
from vaeport.checkpoint.inventory import Inventory, summarise
from vaeport.checkpoint.read import Checkpoint, Entry, open_checkpoint
from vaeport.checkpoint.save import save_folder

__all__ = [
    "Checkpoint",
    "Entry",
    "Inventory",
    "open_checkpoint",
    "read_config",
    "resolve",
    "save_folder",
    "summarise",
]
