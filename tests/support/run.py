"""Runs a script (`run.py FILE ARGS…`) or code (`run.py -c CODE ARGS…`) and leaves without taking the process down in order.

At a normal exit pyarrow's threads may still run while what they need is destroyed, and the process aborts with all its work
done (apache/arrow#34314).
"""

import os
import runpy
import sys
import traceback


def main():
    if sys.argv[1] == "-c":
        code = compile(sys.argv[2], "<code>", "exec")
        sys.argv = sys.argv[2:]
        exec(code, {"__name__": "__main__"})
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")


status = 0
try:
    main()
except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(end.code is not None)
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
