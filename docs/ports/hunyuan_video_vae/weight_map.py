"""Keys of AutoencoderKLCausal3D, found from data flow by `vaeport port`."""

from vaeport.mapping.rules import Fuse, Layout, Rule

OFFICIAL = Layout(
    name="official",
    rules=(
        Rule(
            "encoder.middle.attention.main.attention.qkv.weight", "encoder.mid_block.attentions.0.{part}.weight", fuse=Fuse(('to_q', 'to_k', 'to_v'))
        ),
        Rule(
            "encoder.middle.attention.main.attention.qkv.bias", "encoder.mid_block.attentions.0.{part}.bias", fuse=Fuse(('to_q', 'to_k', 'to_v'))
        ),
        Rule(
            "decoder.middle.attention.main.attention.qkv.weight", "decoder.mid_block.attentions.0.{part}.weight", fuse=Fuse(('to_q', 'to_k', 'to_v'))
        ),
        Rule(
            "decoder.middle.attention.main.attention.qkv.bias", "decoder.mid_block.attentions.0.{part}.bias", fuse=Fuse(('to_q', 'to_k', 'to_v'))
        ),
        Rule("encoder.conv_in.conv.{rest*}", "encoder.conv_in.conv.{rest}"),
        Rule("encoder.levels.{i}.blocks.{j}.main.norm1.{rest*}", "encoder.down_blocks.{i}.resnets.{j}.norm1.{rest}"),
        Rule(
            "encoder.levels.{i}.blocks.{j}.main.conv1.conv.{rest*}", "encoder.down_blocks.{i}.resnets.{j}.conv1.conv.{rest}"
        ),
        Rule("encoder.levels.{i}.blocks.{j}.main.norm2.{rest*}", "encoder.down_blocks.{i}.resnets.{j}.norm2.{rest}"),
        Rule(
            "encoder.levels.{i}.blocks.{j}.main.conv2.conv.{rest*}", "encoder.down_blocks.{i}.resnets.{j}.conv2.conv.{rest}"
        ),
        Rule("encoder.levels.{i}.resample.conv.{rest*}", "encoder.down_blocks.{i}.downsamplers.0.conv.conv.{rest}"),
        Rule(
            "encoder.levels.{i}.blocks.{j}.shortcut.{rest*}", "encoder.down_blocks.{i}.resnets.0.conv_shortcut.conv.{rest}"
        ),
        Rule("encoder.middle.block1.main.norm1.{rest*}", "encoder.mid_block.resnets.0.norm1.{rest}"),
        Rule("encoder.middle.block1.main.conv1.conv.{rest*}", "encoder.mid_block.resnets.0.conv1.conv.{rest}"),
        Rule("encoder.middle.block1.main.norm2.{rest*}", "encoder.mid_block.resnets.0.norm2.{rest}"),
        Rule("encoder.middle.block1.main.conv2.conv.{rest*}", "encoder.mid_block.resnets.0.conv2.conv.{rest}"),
        Rule("encoder.middle.attention.main.norm.{rest*}", "encoder.mid_block.attentions.0.group_norm.{rest}"),
        Rule("encoder.middle.attention.main.attention.proj.{rest*}", "encoder.mid_block.attentions.0.to_out.0.{rest}"),
        Rule("encoder.middle.block2.main.norm1.{rest*}", "encoder.mid_block.resnets.1.norm1.{rest}"),
        Rule("encoder.middle.block2.main.conv1.conv.{rest*}", "encoder.mid_block.resnets.1.conv1.conv.{rest}"),
        Rule("encoder.middle.block2.main.norm2.{rest*}", "encoder.mid_block.resnets.1.norm2.{rest}"),
        Rule("encoder.middle.block2.main.conv2.conv.{rest*}", "encoder.mid_block.resnets.1.conv2.conv.{rest}"),
        Rule("encoder.norm_out.{rest*}", "encoder.conv_norm_out.{rest}"),
        Rule("encoder.conv_out.conv.{rest*}", "encoder.conv_out.conv.{rest}"),
        Rule("encoder.quant_conv.{rest*}", "quant_conv.{rest}"),
        Rule("decoder.post_quant_conv.{rest*}", "post_quant_conv.{rest}"),
        Rule("decoder.conv_in.conv.{rest*}", "decoder.conv_in.conv.{rest}"),
        Rule("decoder.middle.block1.main.norm1.{rest*}", "decoder.mid_block.resnets.0.norm1.{rest}"),
        Rule("decoder.middle.block1.main.conv1.conv.{rest*}", "decoder.mid_block.resnets.0.conv1.conv.{rest}"),
        Rule("decoder.middle.block1.main.norm2.{rest*}", "decoder.mid_block.resnets.0.norm2.{rest}"),
        Rule("decoder.middle.block1.main.conv2.conv.{rest*}", "decoder.mid_block.resnets.0.conv2.conv.{rest}"),
        Rule("decoder.middle.attention.main.norm.{rest*}", "decoder.mid_block.attentions.0.group_norm.{rest}"),
        Rule("decoder.middle.attention.main.attention.proj.{rest*}", "decoder.mid_block.attentions.0.to_out.0.{rest}"),
        Rule("decoder.middle.block2.main.norm1.{rest*}", "decoder.mid_block.resnets.1.norm1.{rest}"),
        Rule("decoder.middle.block2.main.conv1.conv.{rest*}", "decoder.mid_block.resnets.1.conv1.conv.{rest}"),
        Rule("decoder.middle.block2.main.norm2.{rest*}", "decoder.mid_block.resnets.1.norm2.{rest}"),
        Rule("decoder.middle.block2.main.conv2.conv.{rest*}", "decoder.mid_block.resnets.1.conv2.conv.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.main.norm1.{rest*}", "decoder.up_blocks.{i}.resnets.{j}.norm1.{rest}"),
        Rule(
            "decoder.levels.{i}.blocks.{j}.main.conv1.conv.{rest*}", "decoder.up_blocks.{i}.resnets.{j}.conv1.conv.{rest}"
        ),
        Rule("decoder.levels.{i}.blocks.{j}.main.norm2.{rest*}", "decoder.up_blocks.{i}.resnets.{j}.norm2.{rest}"),
        Rule(
            "decoder.levels.{i}.blocks.{j}.main.conv2.conv.{rest*}", "decoder.up_blocks.{i}.resnets.{j}.conv2.conv.{rest}"
        ),
        Rule("decoder.levels.{i}.resample.conv.conv.{rest*}", "decoder.up_blocks.{i}.upsamplers.0.conv.conv.{rest}"),
        Rule(
            "decoder.levels.{i}.blocks.{j}.shortcut.{rest*}", "decoder.up_blocks.{i}.resnets.0.conv_shortcut.conv.{rest}"
        ),
        Rule("decoder.norm_out.{rest*}", "decoder.conv_norm_out.{rest}"),
        Rule("decoder.conv_out.conv.{rest*}", "decoder.conv_out.conv.{rest}"),
    ),
)

LAYOUTS = (OFFICIAL,)
