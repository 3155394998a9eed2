"""What can be done in the hub, in few words, and who asks for it: the values that catalog/access.py decides on."""

from __future__ import annotations

from dataclasses import dataclass

#: Definitions, values, runs, rejected rows, training datasets.
READ = "read"
#: Values of features that are tagged `pii`, on top of READ.
READ_PII = "pii:read"
#: Rows, runs of a source, settling rejected rows, making training datasets.
WRITE = "write"
#: Definitions: what groups, features and services there are, and in what status.
REGISTRY = "registry"

#: What people alone may do: make something new, and what cannot be taken back or decides who else may (deleting,
#: dropping versions, owners and roles).
CREATE = "create"
MANAGE = "manage"

ACTIONS = (READ, READ_PII, WRITE, REGISTRY, CREATE, MANAGE)
#: The actions that a key can be made for.
SCOPES = (READ, READ_PII, WRITE, REGISTRY)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a key may ask: `per_second` requests on average, `burst` of them at once."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a key stands for: what it may do, and with which feature groups (None: with every one).

    key_id:   the key's public id.
    is_shell: whether it is no key but somebody who runs a command on a machine of the hub.
    """

    name: str
    scopes: frozenset[str]
    groups: frozenset[str] | None = None
    limit: Limit | None = None
    is_authenticated: bool = True
    is_active: bool = True
    key_id: str = ""
    is_shell: bool = False

    def __str__(self) -> str:
        return self.name


ANONYMOUS_READER = Caller("anonymous", frozenset({READ}))


def at_shell(login: str) -> Caller:
    """Who runs a command on a machine of the hub, under a login there: may do what every key may."""
    return Caller(login, frozenset(SCOPES), is_shell=True)
