"""Definitions as code: the catalog as YAML files that can be planned, applied and exported.

Files are read into a `Document` (reading), the catalog is another `Document` (exporting); what differs is the plan
(planning), once nothing is wrong (checking); applying writes the plan in one transaction.
"""

from catalog.definitions.applying import apply
from catalog.definitions.drift import drift
from catalog.definitions.exporting import export, exported
from catalog.definitions.planning import Change, FieldChange, Plan, plan

__all__ = ["Change", "FieldChange", "Plan", "apply", "drift", "export", "exported", "plan"]
