"""Key layouts of GameCraft, which are HunyuanVideo's."""

from vaeport.weights.hunyuan_video import LAYOUTS

__all__ = ["LAYOUTS"]
