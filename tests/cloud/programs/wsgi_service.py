"""One of the plain APIs as a process: ``wsgi_service.py keystone|barbican|placement|glance PORT``.

Where their configuration lies is in the environment. One thread for each: these services keep
plain SQLite files, on which two threads of one service get into each other's way.
"""
import os
import signal
import sys

from cheroot import wsgi


def keystone():
    """Keystone's public application."""
    from keystone.server import wsgi as keystone_wsgi
    return keystone_wsgi.initialize_public_application()


def barbican():
    """Barbican's application; its own start script knows only a paste file in /etc."""
    from barbican.common import config  # noqa: F401 (reads the configuration)
    from paste import deploy
    return deploy.loadapp("config:" + os.environ["BARBICAN_PASTE_FILE"])


def placement():
    """Placement's application."""
    from placement import wsgi as placement_wsgi
    return placement_wsgi.init_application()


def glance():
    """Glance's application."""
    from glance.common import wsgi_app
    return wsgi_app.init_app()


def main():
    """Serve until SIGTERM."""
    name, port = sys.argv[1:]
    applications = {"keystone": keystone, "barbican": barbican, "placement": placement,
                    "glance": glance}
    sys.argv = [name]  # the services look for options of their own
    server = wsgi.Server(("127.0.0.1", int(port)), applications[name](), numthreads=1,
                         server_name=name, request_queue_size=64)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
