"""`python -m llama_async_proxy` is the command line."""

import sys

from llama_async_proxy.cli import main

sys.exit(main())
