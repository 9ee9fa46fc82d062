"""All views, by the names of their contracts."""

from __future__ import annotations

from vaeport.port.views.component_context import ComponentContext
from vaeport.port.views.component_handoff import ComponentHandoff
from vaeport.port.views.conversion import ConversionHandoff, ConversionRequest, ConversionRetry
from vaeport.port.views.escape_hatch import EscapeHatchView
from vaeport.port.views.parity_status import ParityStatus
from vaeport.port.views.port_status import PortStatus
from vaeport.port.views.view import View

VIEWS: dict[str, type[View]] = {
    view.NAME: view
    for view in (
        ComponentContext,
        ComponentHandoff,
        ParityStatus,
        ConversionRequest,
        ConversionRetry,
        ConversionHandoff,
        EscapeHatchView,
        PortStatus,
    )
}
