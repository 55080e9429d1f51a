"""TensorBoard as the button of NNI's web UI starts it: behind a secret, which preload.js hands over.

python -P runner/serve_tensorboard.py --host 127.0.0.1 --logdir_spec ... --port=6006

Without -P `import tensorboard` would find this folder's file of that name.
"""

import os
import sys

from tensorboard import manager
from tensorboard.main import run_main

manager.write_info_file = lambda info: None  # a file in /tmp that every user can read; it names the secret
sys.argv += ["--path_prefix", os.environ.pop("HPO_TENSORBOARD_PREFIX")]  # not on the command line either
run_main()
