from __future__ import annotations

import sys

from clients.table import main

sys.exit(main())
