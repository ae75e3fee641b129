"""Run the whole server in memory, in virtual time: for this project's tests and for yours.

No socket is opened and nothing sleeps. Real bytes flow: the clients speak HTTP, WebSocket, Engine.IO and Socket.IO to
the same :class:`automoderate.server.Server` that an adapter drives::

    simulation = Simulation()
    simulation.directory.add_user("alice")
    simulation.directory.add_project("p1", owner="alice")
    alice = simulation.connect("alice")
    alice.emit("join_project", {"project_id": "p1"})
    simulation.run()
    simulation.publish("p1", "stats_update", {"total": 3})
    simulation.run()
    assert alice.received[-1].event == "stats_update"

``run()`` lets everything happen that is under way; ``advance(seconds)`` lets time pass. With ``Faults`` the network
cuts the streams of bytes anywhere and delays them, and the directory is slow or fails. All chance comes from the one
``seed``, so that a run can be repeated.
"""

from automoderate.testing.client import ReceivedEvent, SimulatedClient, TransportName
from automoderate.testing.directory import MemoryDirectory
from automoderate.testing.network import Faults
from automoderate.testing.nodes import Nodes
from automoderate.testing.simulation import Simulation

__all__ = [
    "Faults",
    "MemoryDirectory",
    "Nodes",
    "ReceivedEvent",
    "SimulatedClient",
    "Simulation",
    "TransportName",
]
