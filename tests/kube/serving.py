"""The API server of a whole run of tests, here and of the chart."""

import contextlib

from server import ApiServer, Failed
from support.need import cannot_run


@contextlib.contextmanager
def api_server(folder):
    try:
        server = ApiServer(folder, tied=True)
    except Failed as e:
        cannot_run(str(e))
    try:
        yield server.up()
    finally:
        server.down()
