"""How weights of a foreign layout become native ones and back: rules as data, and what carries them out."""

from vaeport.mapping.plan import Plan, plan
from vaeport.mapping.rules import Block, Drop, DtypeNote, Fuse, Layout, Rule, Units

__all__ = ["Block", "Drop", "DtypeNote", "Fuse", "Layout", "Plan", "Rule", "Units", "plan"]
