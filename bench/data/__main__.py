"""See `bench.data.load`."""

import sys

from bench.data.load import main

sys.exit(main())
