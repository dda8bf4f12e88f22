"""One package per framework that can run a plan. Nothing in `planner` or `report` imports from here."""
