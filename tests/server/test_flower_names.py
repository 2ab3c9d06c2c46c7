"""The private names of Flower and uvicorn that the coordinator's link leans on, as they were when it was written.

A failure lists all that moved. Read what changed upstream before a line here is changed.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from flwr import app
from flwr.app.message import remove_content_from_message
from flwr.common import constant
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore import constant as core
from flwr.supercore.inflatable import inflatable_object as inflatable
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink import config_loader
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.servicer.fleet import fleet_handlers
from uvicorn.protocols.http.h11_impl import H11Protocol

PLACES: dict[str, Any] = {
    "LinkState": InMemoryLinkState,
    "ObjectStore": InMemoryObjectStore,
    "H11Protocol": H11Protocol,
    "fleet_handlers": fleet_handlers,
    "inflatable": inflatable,
    "uvicorn": uvicorn,
    "config_loader": config_loader,
    "node_auth": node_auth,
    "app": app,
    "remove_content_from_message": remove_content_from_message,
}

# Parameters with their defaults; annotations are spelt differently from one Python to the next.
SIGNATURES = {
    "config_loader.get_federation_manager": "(is_simulation=False)",
    "config_loader.get_objectstore_linkstate_factories": "(database, federation_manager)",
    "node_auth.authenticate_node": "(request)",
    "fleet_handlers.activate_node": "(request, state)",
    "fleet_handlers.pull_messages": "(request, state, store)",
    "fleet_handlers.deactivate_node": "(request, state)",
    "fleet_handlers.send_node_heartbeat": "(request, state)",
    "LinkState.create_run": (
        "(self, fab_id, fab_version, fab_hash, override_config, federation_id, federation_config, "
        "flwr_aid, primary_task_type, series_id=None, series_description=None, connector_ids=(), "
        "initial_task_event=None, user_prompt=None)"
    ),
    "LinkState.get_tasks": (
        "(self, *, task_ids=None, run_ids=None, statuses=None, order_by=None, ascending=True, limit=None)"
    ),
    "LinkState.claim_task": "(self, task_id)",
    "LinkState.activate_task": "(self, task_id)",
    "LinkState.finish_task": "(self, task_id, sub_status, details)",
    "LinkState.get_nodes": "(self, run_id)",
    "LinkState.get_node_info": "(self, *, node_ids=None, owner_aids=None, statuses=None)",
    "LinkState.get_node_id_by_public_key": "(self, public_key)",
    "LinkState.create_node": (
        "(self, owner_aid, owner_name, public_key, heartbeat_interval, *, location=None, name=None)"
    ),
    "LinkState.activate_node": "(self, node_id, heartbeat_interval)",
    "LinkState.deactivate_node": "(self, node_id)",
    "LinkState.start_session": "(self, run_id)",
    "LinkState.store_message_and_object_tree": "(self, message, object_tree, session_id)",
    "LinkState.store_object": "(self, run_id, session_id, object_id, object_content)",
    "LinkState.get_object": "(self, run_id, object_id)",
    "LinkState.delete_messages": "(self, message_ins_ids)",
    "ObjectStore": "(verify=True)",
    "ObjectStore.delete": "(self, object_id)",
    "inflatable.get_all_nested_objects": "(obj)",
    "inflatable.get_object_tree": "(obj)",
    "inflatable.iterate_object_tree": "(tree)",
    "inflatable.no_object_id_recompute": "()",
    "remove_content_from_message": "(message)",
    "app.Message.inflate": "(object_content, children=None)",
    "app.RecordDict.inflate": "(object_content, children=None)",
    "app.ArrayRecord.inflate": "(object_content, children=None)",
    "app.ConfigRecord.inflate": "(object_content, children=None)",
    "app.MetricRecord.inflate": "(object_content, children=None)",
    "app.Array": "(*args, dtype=None, shape=None, stype=None, data=None, ndarray=None, torch_tensor=None)",
    "uvicorn.Server": "(config)",
    "uvicorn.Server.startup": "(self, sockets=None)",
    "uvicorn.Server.shutdown": "(self, sockets=None)",
    "H11Protocol": "(config, server_state, app_state, _loop=None)",
    "H11Protocol.connection_made": "(self, transport)",
    "H11Protocol.connection_lost": "(self, exc)",
    "H11Protocol.data_received": "(self, data)",
    "H11Protocol.handle_events": "(self)",
    "H11Protocol.on_response_complete": "(self)",
}

# Constants, and fields of messages on the wire.
VALUES = {
    "NOOP_ACCOUNT_NAME": (constant.NOOP_ACCOUNT_NAME, "none"),
    "NOOP_FLWR_AID": (constant.NOOP_FLWR_AID, "<id:none>"),
    "SUPERLINK_NODE_ID": (constant.SUPERLINK_NODE_ID, 1),
    "HEARTBEAT_MIN_INTERVAL": (constant.HEARTBEAT_MIN_INTERVAL, 10),
    "SubStatus.COMPLETED": (constant.SubStatus.COMPLETED, "completed"),
    "FLWR_IN_MEMORY_DB_NAME": (core.FLWR_IN_MEMORY_DB_NAME, ":flwr-in-memory:"),
    "NOOP_FEDERATION_ID": (core.NOOP_FEDERATION_ID, "@none/default"),
    "NodeStatus.ONLINE": (core.NodeStatus.ONLINE, "online"),
    "TaskType.SERVER_APP": (core.TaskType.SERVER_APP, "flwr-serverapp"),
}
FIELDS = {
    fleet_pb2.ActivateNodeRequest: "public_key heartbeat_interval",
    fleet_pb2.DeactivateNodeRequest: "node_id",
    heartbeat_pb2.SendNodeHeartbeatRequest: "node heartbeat_interval",
    fleet_pb2.PullMessagesRequest: "node message_ids",
    fleet_pb2.PushMessagesRequest: "node messages_list message_object_trees clientapp_runtime_list",
    fleet_pb2.PushMessagesResponse: "reconnect results objects_to_push session_id",
    message_pb2.PushObjectRequest: "node run_id object_id object_content session_id",
    message_pb2.PushObjectResponse: "stored",
    message_pb2.PullObjectRequest: "node run_id object_id",
    message_pb2.PullObjectResponse: "object_found object_available object_content",
    message_pb2.ConfirmMessageReceivedRequest: "node run_id message_object_id",
}
# Attributes that Flower makes in __init__, and of what type.
ATTRIBUTES = {"message_ins_store": dict, "task_token_store": dict, "object_store": InMemoryObjectStore}


def shape(call: Callable[..., Any]) -> str:
    signature = inspect.signature(call)
    empty = inspect.Parameter.empty
    bare = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=empty))


def found(name: str) -> str:
    place, *rest = name.split(".")
    thing = PLACES[place]
    try:
        for part in rest:
            thing = getattr(thing, part)
        return shape(thing)
    except AttributeError:
        return "gone"


def test_nothing_that_the_link_leans_on_has_moved() -> None:
    moved = {name: found(name) for name, expected in SIGNATURES.items() if found(name) != expected}
    moved |= {name: repr(value) for name, (value, expected) in VALUES.items() if value != expected}
    for message, fields in FIELDS.items():
        if [f.name for f in message.DESCRIPTOR.fields] != fields.split():
            moved[message.DESCRIPTOR.name] = " ".join(f.name for f in message.DESCRIPTOR.fields)
    state = InMemoryLinkState(NoOpFederationManager(), InMemoryObjectStore())
    moved |= {n: "gone" for n, kind in ATTRIBUTES.items() if not isinstance(getattr(state, n, None), kind)}
    assert moved == {}


def test_every_private_name_in_the_link_is_pinned_above() -> None:
    server = Path(__file__).parents[2] / "server"
    link = (server / "link.py").read_text() + (server / "port" / "fleet_api.py").read_text()
    used = {f"LinkState.{n}" for n in re.findall(r"_state\.(\w+)\(", link)}
    used |= {f"fleet_handlers.{n}" for n in re.findall(r"fleet_handlers\.(\w+)\(", link)}
    used |= {f"inflatable.{n}" for n in ("get_all_nested_objects", "get_object_tree", "iterate_object_tree",
                                         "no_object_id_recompute") if n in link}  # fmt: skip
    assert used <= set(SIGNATURES)
    assert {n for n in re.findall(r"_state\.(\w+)(?![\w(])", link)} <= set(ATTRIBUTES)
    imported = set(re.findall(r"\b[A-Z]\w+Request\b", link))
    assert imported == {m.DESCRIPTOR.name for m in FIELDS if m.DESCRIPTOR.name.endswith("Request")}
