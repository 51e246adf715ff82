"""The main job on one machine: a hub, three edges, real orders, a cut link, a kill, a conflict, and a report counted from the stores."""
