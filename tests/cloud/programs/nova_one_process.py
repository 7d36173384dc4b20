"""All of nova in one process, for machines without RabbitMQ: ``nova_one_process.py CONFIG_FILE``.

oslo.messaging's fake transport only reaches as far as one process, so conductor, scheduler, one
compute and the API share it.
"""
from nova import monkey_patch  # noqa: F401 I001 (patches the standard library: first of all)

import os
import shlex
import signal
import sys
import traceback

import os_vif
from oslo_log import log
from oslo_privsep import priv_context

import nova.conf
from nova import config, objects, service, utils


def main():
    """Start the services and serve the API until SIGTERM."""
    config.parse_args(["nova", "--config-file", sys.argv[1], *sys.argv[2:]])
    log.setup(nova.conf.CONF, "nova")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    objects.register_all()
    os_vif.initialize()
    objects.Service.enable_min_version_cache()
    for name in ("conductor", "scheduler", "compute"):
        service.Service.create(binary="nova-" + name, topic=name).start()
    api = service.WSGIService("osapi_compute")
    api.start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    api.wait()


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 (whatever it was, no green thread may keep this alive)
        traceback.print_exc()
        os._exit(1)
