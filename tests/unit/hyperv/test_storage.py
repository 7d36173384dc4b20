"""Where the disks of simulated hosts lie."""
import unittest

from tests.hyperv import fabric, storage


class StorageTest(unittest.TestCase):

    def setUp(self):
        self.storage = storage.Storage("/x/%COMPUTERNAME%/c")

    def test_each_host_has_a_folder(self):
        self.assertEqual("/x/HV1/c", self.storage.folder("hv1"))
        self.assertEqual("/x/HV2/c/Instances",
                         self.storage.expand("/x/%COMPUTERNAME%/c/Instances", "HV2"))

    def test_the_same_name_on_another_host(self):
        for path, expected in (("/x/HV1/c/a/b", "/x/HV2/c/a/b"), ("/x/HV1/c", "/x/HV2/c"),
                               ("/x/HV1/c/", "/x/HV2/c"),
                               ("/x/%COMPUTERNAME%/c/a", "/x/HV2/c/a")):
            self.assertEqual(expected, self.storage.path_on(path, "HV1", "HV2"))

    def test_shared_paths_are_the_same_everywhere(self):
        for path in ("/shared/a", "/x/HV10/c/a", "/x/HV1/cc", "/x/HV3/c/a", "/x/HV2/c/a"):
            self.assertEqual(path, self.storage.path_on(path, "HV1", "HV2"))
        self.assertFalse(self.storage.is_local("/x/HV10/c/a", "HV1"))
        self.assertTrue(self.storage.is_local("/x/HV1/c/a", "HV1"))
        self.assertFalse(self.storage.is_local("/x/HV1/c/a", "HV2"))

    def test_nobody_leaves_his_folder(self):
        self.assertFalse(self.storage.is_local("/x/HV1/c/../../HV2/c/a", "HV1"))

    def test_administrative_shares(self):
        for path, expected in (("\\\\HV2\\/x/HV1/c/a", "/x/HV2/c/a"),
                               ("\\\\hv2\\/x/%COMPUTERNAME%/c/a", "/x/HV2/c/a"),
                               ("\\\\HV2\\/shared/a", "/shared/a"),
                               ("/x/%COMPUTERNAME%/c", "/x/HV1/c"), ("/x/HV1/c", "/x/HV1/c")):
            self.assertEqual(expected, self.storage.reached(path, "HV1"))
        self.assertRaises(ValueError, self.storage.reached, "\\\\HV2\\instances", "HV1")

    def test_without_a_template_all_is_shared(self):
        one = storage.Storage()
        self.assertIsNone(one.folder("HV1"))
        self.assertFalse(one.is_local("/x", "HV1"))
        self.assertEqual("/x/HV1/a", one.path_on("/x/HV1/a", "HV1", "HV2"))
        self.assertEqual("/x/HV1", one.reached("\\\\HV2\\/x/HV1", "HV1"))

    def test_a_share_of_nobody(self):
        simulated = fabric.Fabric({"storage": "/x/%COMPUTERNAME%", "hosts": [{"name": "HV1"}]})
        with self.assertRaisesRegex(FileNotFoundError, "network path"):
            simulated.storage.reached("\\\\HV2\\/x/HV1/a", "HV1")

    def test_a_template_must_name_the_host(self):
        for wrong in ("/x", "x/%COMPUTERNAME%"):
            self.assertRaises(ValueError, storage.Storage, wrong)

    def test_a_fabric_has_one(self):
        hosts = [{"name": "HV1"}, {"name": "HV2", "address": "203.0.113.7"}]
        simulated = fabric.Fabric({"storage": "/x/%COMPUTERNAME%", "hosts": hosts})
        self.assertEqual("/x/HV2/a", simulated.storage.path_on("/x/HV1/a", "hv1", "203.0.113.7"))
        self.assertEqual("/x/%COMPUTERNAME%", simulated.storage_template())
        self.assertEqual("HV1", simulated.computer_name(simulated.address("HV1")))
        self.assertEqual("HV2", simulated.computer_name("203.0.113.7"))
        self.assertRaises(KeyError, simulated.computer_name, "HV3")
        self.assertIsNone(fabric.Fabric({}).storage_template())
