"""What all tests share that run Hyper-V nova-computes in one process."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip

import time
import types

import fixtures
from keystoneauth1 import exceptions as keystone_exceptions
from nova.api import auth
from nova.image import glance

from tests.functional import green_threads
from tests.hyperv.windows_stand_ins import TINY_VHDX


def _with_token(ask):
    def ask_with_token(api, context, *arguments, **keywords):
        if not context.auth_token:
            raise keystone_exceptions.AuthorizationFailure("no token for Glance")
        return ask(api, context, *arguments, **keywords)
    return ask_with_token


class HyperVServicesCase(nova_base.NovaTestCase):
    """Simulated hosts are installed before its set-up, and os-win is imported.

    :ivar green_threads: those that a nova-compute spawns
    """

    def setUp(self):
        self.green_threads = self.useFixture(green_threads.EndedGreenThreads())
        super().setUp()
        # os-win tries failed jobs again, a second apart.
        self.useFixture(fixtures.MonkeyPatch("os_win._utils.time", types.SimpleNamespace(
            sleep=lambda seconds: None, time=time.time)))
        self._give_tokens()

    def _give_tokens(self):
        # Nova's fixture for authentication gives none, and compute-hyperv asks Glance with one.
        create_context = auth.NovaKeystoneContext._create_context

        def create_context_with_token(env, **keywords):
            context = create_context(env, **keywords)
            context.auth_token = "token"
            return context
        self.useFixture(fixtures.MonkeyPatch(
            "nova.api.auth.NovaKeystoneContext._create_context", create_context_with_token))
        # And serves who comes without one, as a nova-compute that starts does.
        for name in ("get", "download"):
            self.useFixture(fixtures.MonkeyPatch(
                "nova.image.glance.API." + name, _with_token(getattr(glance.API, name))))

    def create_image(self, number=1, **properties):
        image = super().create_image(number, **properties)
        self.glance._imagedata[image] = TINY_VHDX
        return image
