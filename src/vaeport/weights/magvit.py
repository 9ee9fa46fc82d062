"""Key layout of Magvit, found from data flow by `vaeport port`."""

from vaeport.mapping.rules import Layout, Rule

DIFFUSERS = Layout(
    name="diffusers",
    rules=(
        Rule("encoder.conv_in.conv.{rest*}", "encoder.conv_in.{rest}"),
        Rule(
            "encoder.levels.{i}.blocks.{j}.main.norm1.layer.{rest*}", "encoder.down_blocks.{i}.convs.{j}.norm1.{rest}"
        ),
        Rule("encoder.levels.{i}.blocks.{j}.main.conv1.conv.{rest*}", "encoder.down_blocks.{i}.convs.{j}.conv1.{rest}"),
        Rule(
            "encoder.levels.{i}.blocks.{j}.main.norm2.layer.{rest*}", "encoder.down_blocks.{i}.convs.{j}.norm2.{rest}"
        ),
        Rule("encoder.levels.{i}.blocks.{j}.main.conv2.conv.{rest*}", "encoder.down_blocks.{i}.convs.{j}.conv2.{rest}"),
        Rule("encoder.levels.{i}.resample.conv.{rest*}", "encoder.down_blocks.{i}.downsampler.conv.{rest}"),
        Rule("encoder.levels.{i}.blocks.{j}.shortcut.{rest*}", "encoder.down_blocks.{i}.convs.0.shortcut.{rest}"),
        Rule("encoder.middle.blocks.{i}.main.norm1.layer.{rest*}", "encoder.mid_block.convs.{i}.norm1.{rest}"),
        Rule("encoder.middle.blocks.{i}.main.conv1.conv.{rest*}", "encoder.mid_block.convs.{i}.conv1.{rest}"),
        Rule("encoder.middle.blocks.{i}.main.norm2.layer.{rest*}", "encoder.mid_block.convs.{i}.norm2.{rest}"),
        Rule("encoder.middle.blocks.{i}.main.conv2.conv.{rest*}", "encoder.mid_block.convs.{i}.conv2.{rest}"),
        Rule("encoder.norm_out.layer.{rest*}", "encoder.conv_norm_out.{rest}"),
        Rule("encoder.conv_out.conv.{rest*}", "encoder.conv_out.{rest}"),
        Rule("encoder.quant_conv.{rest*}", "quant_conv.{rest}"),
        Rule("decoder.post_quant_conv.{rest*}", "post_quant_conv.{rest}"),
        Rule("decoder.conv_in.conv.{rest*}", "decoder.conv_in.{rest}"),
        Rule("decoder.middle.blocks.{i}.main.norm1.layer.{rest*}", "decoder.mid_block.convs.{i}.norm1.{rest}"),
        Rule("decoder.middle.blocks.{i}.main.conv1.conv.{rest*}", "decoder.mid_block.convs.{i}.conv1.{rest}"),
        Rule("decoder.middle.blocks.{i}.main.norm2.layer.{rest*}", "decoder.mid_block.convs.{i}.norm2.{rest}"),
        Rule("decoder.middle.blocks.{i}.main.conv2.conv.{rest*}", "decoder.mid_block.convs.{i}.conv2.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.main.norm1.layer.{rest*}", "decoder.up_blocks.{i}.convs.{j}.norm1.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.main.conv1.conv.{rest*}", "decoder.up_blocks.{i}.convs.{j}.conv1.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.main.norm2.layer.{rest*}", "decoder.up_blocks.{i}.convs.{j}.norm2.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.main.conv2.conv.{rest*}", "decoder.up_blocks.{i}.convs.{j}.conv2.{rest}"),
        Rule("decoder.levels.{i}.resample.conv.conv.{rest*}", "decoder.up_blocks.{i}.upsampler.conv.{rest}"),
        Rule("decoder.levels.{i}.blocks.{j}.shortcut.{rest*}", "decoder.up_blocks.{i}.convs.0.shortcut.{rest}"),
        Rule("decoder.norm_out.layer.{rest*}", "decoder.conv_norm_out.{rest}"),
        Rule("decoder.conv_out.conv.{rest*}", "decoder.conv_out.{rest}"),
    ),
)

LAYOUTS = (DIFFUSERS,)
