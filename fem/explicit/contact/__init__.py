"""Contact of nodes with rigid obstacles that stand, move as prescribed, or fly freely with a mass.

An obstacle is described by its signed distance (`fem.explicit.contact.obstacle`, shapes in
`fem.explicit.contact.shapes`). Two ways to keep nodes out:

- **Impulses** (penalty 0, the default): a node that would enter an obstacle is put exactly onto it. It lands
  inelastically: the normal kinetic energy of the nodal mass is lost, half a layer of cells for a flat foot, so that
  the loss falls with the first power of the cell size. Impact codes book it in the same way for rigid walls
  ("stonewall energy").
- **Penalty**: a spring of the stiffness k = penalty * mass / dt_0^2 at each node, with the stable step dt_0 of the body
  at rest. Nothing is lost: what the springs store returns when the nodes leave. Nodes enter the obstacle by about
  2 p / (penalty * M) of a cell at the pressure p and the wave modulus M.

Friction follows Coulomb's law in impulses: in each half of a step the tangential impulse of a node opposes its sliding,
brings it to rest at most, and is not larger than the coefficient times the normal impulse.
"""

from fem.explicit.contact.obstacle import FreeBody, Obstacle
from fem.explicit.contact.shapes import RigidCylinder, RigidFunction, RigidPlane, RigidSphere
from fem.explicit.contact.system import ContactSystem, rigid_obstacles

__all__ = [
    "ContactSystem",
    "FreeBody",
    "Obstacle",
    "RigidCylinder",
    "RigidFunction",
    "RigidPlane",
    "RigidSphere",
    "rigid_obstacles",
]
