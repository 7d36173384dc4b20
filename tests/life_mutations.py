"""Faults in what the drivers do over a server's life: refusals, guards, and what they put back.

``tools/check-mutations`` takes them with those of tests/mutations.py, ``tools/check-mutations
life:`` alone.
"""

from __future__ import annotations

from tests.mutations import Mutation

_DRIVER = "tests/functional/test_vtpm_driver.py::VtpmDriverTest::"
_FILES = "tests/unit/test_definition_files.py::"
_CASES = "tests/functional/test_server_life.py::"
_LIFE = _CASES + "ComputeHyperVLifeTest::"
_CELLS = _CASES + "ComputeHyperVCellsTest::"
_EVACUATION = _CASES + "ComputeHyperVEvacuationTest::"
_KILLED = "tests/functional/test_killed_compute.py::ComputeHyperVKilledTest::"
_CLUSTER = "tests/functional/test_vtpm_cluster_driver.py::VtpmClusterDriverTest::"
_CLUSTERED = "tests/functional/test_vtpm_cluster_driver.py::ClusterEvacuationTest::"

MUTATIONS = (
    # Refusals.
    Mutation(
        "life: shelve not refused",
        "The server is shelved: its TPM goes with its VM.",
        "server_life.py",
        "    task_states.SHELVING: Operation.SHELVE,\n",
        "",
        (_LIFE + "test_shelve_of_a_stopped_server",)),
    Mutation(
        "life: state after a refused rescue",
        "A server that runs on is in ERROR, and only an administrator can reset that.",
        "server_life.py",
        "        undo.callback(refused_rescue.put_state_back_later, instance)\n",
        "",
        (_LIFE + "test_what_stops_a_server_to_start_it_again_is_not_begun",)),
    Mutation(
        "life: end of a rescue that cannot start",
        "The server that was being rescued is off, and does not start again.",
        "server_life.py",
        """\
            with _state_kept(instance):
                self._require_rescue(instance)
            super().unrescue(context, instance)
""",
        "            super().unrescue(context, instance)\n",
        (_LIFE + "test_what_stops_a_server_to_start_it_again_is_not_begun",)),
    Mutation(
        "life: soft reboot tells nobody",
        "The user's soft reboot did nothing, and its event says that it was done.",
        "server_life.py",
        "            with compute_utils.EventReporter(context, name, self._host_name, "
        "instance.uuid):\n",
        "            if True:\n",
        (_LIFE + "test_what_stops_a_server_to_start_it_again_is_not_begun",)),
    Mutation(
        "life: config drive on a VHD",
        "The build ends in words of Hyper-V, after keys were fetched and a VM was made.",
        "server_life.py",
        "    if configdrive.required_by(instance) and not CONF.hyperv.config_drive_cdrom:\n",
        "    if False:\n",
        (_LIFE + "test_a_config_drive",)),
    Mutation(
        "life: failover that Nova does not follow",
        "Nova has the server on a node that is gone, and nobody hears why.",
        "cluster_operations.py",
        "        except exception.UnexpectedTaskStateError as exc:\n",
        "        except ZeroDivisionError as exc:\n",
        ("tests/functional/test_vtpm_cluster_driver.py::EvacuationToClusterTest::"
         "test_killed_in_the_middle",)),
    Mutation(
        "life: offload not refused",
        "A server that was shelved before it had this driver loses its VM and TPM.",
        "server_life.py",
        "    task_states.SHELVING_OFFLOADING: Operation.SHELVE,\n",
        "",
        (_LIFE + "test_offload_of_what_was_shelved_before",)),
    Mutation(
        "life: shelve's image left",
        "Each refused shelve leaves an image without data in the user's list.",
        "server_life.py",
        "                    undo.callback(shelve_image.delete_queued, instance)\n",
        "                    pass\n",
        (_LIFE + "test_a_shelve_that_is_refused_deletes_its_image_only",)),
    Mutation(
        "life: an image with data deleted",
        "The refusal of a shelve takes the image of an earlier one, and the disk in it.",
        "shelve_image.py",
        'image["status"] == "queued" and ',
        "",
        (_LIFE + "test_a_shelve_that_is_refused_deletes_its_image_only",)),
    Mutation(
        "life: unshelve not refused",
        "The server starts with a new and empty TPM, and asks for BitLocker's recovery key.",
        "vtpm_driver.py",
        "                    self._refuse_existing(instance)\n",
        "",
        (_LIFE + "test_unshelve_of_what_another_driver_offloaded",)),
    Mutation(
        "life: resize to another cell not refused",
        "The server is made anew there, with an empty TPM.",
        "server_life.py",
        "    task_states.RESIZE_MIGRATING: Operation.CROSS_CELL,\n",
        "",
        (_CELLS + "test_resize_to_another_cell",)),
    Mutation(
        "life: resize loses the state file",
        "The TPM's contents lie where they are not copied from: the VM arrives without them.",
        "server_life.py",
        "lambda: self._misplaced(instance),",
        "lambda: None,",
        (_LIFE + "test_a_guest_state_file_that_is_not_copied",)),
    Mutation(
        "life: resize to a flavor that forbids the vTPM",
        "The server keeps a TPM that its flavor forbids, or is not shielded as it says.",
        "server_life.py",
        "Condition.SAME_REQUEST: lambda: _other_request(",
        "Condition.SAME_REQUEST: lambda: None and _other_request(",
        (_LIFE + "test_flavors_that_change_the_vtpm",)),
    Mutation(
        "life: resize to a flavor that wants a vTPM",
        "The user believes that the server has a TPM from now on: it has none.",
        "server_life.py",
        """\
                if refusal is not None:
                    raise errors.OperationRefusedError(refusal)
""",
        "",
        (_LIFE + "test_a_resize_adds_no_vtpm",)),
    Mutation(
        "life: resize of what no host can start",
        "The server is stopped and moved, and starts nowhere.",
        "server_life.py",
        """\
                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})
            else:
""",
        """\
                    Condition.CAN_UNWRAP: lambda: None})
            else:
""",
        (_LIFE + "test_a_resize_of_what_the_fabric_cannot_unwrap_any_more",)),
    Mutation(
        "life: live migration to a host that is not guarded",
        "It fails in its middle, without a reason.",
        "server_life.py",
        """\
                    Condition.GUARDED: self._unguarded,
                    Condition.SAME_FABRIC: lambda: self._other_fabric(instance),
""",
        """\
                    Condition.GUARDED: lambda: None,
                    Condition.SAME_FABRIC: lambda: None,
""",
        (_LIFE + "test_live_migration_to_a_host_that_is_not_guarded_any_more",)),
    Mutation(
        "life: live migration of what no host can start",
        "It fails in its middle, without a reason.",
        "server_life.py",
        """\
                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})
        return super().check_can_live_migrate_source""",
        """\
                    Condition.CAN_UNWRAP: lambda: None})
        return super().check_can_live_migrate_source""",
        (_LIFE + "test_live_migration_of_what_its_own_host_cannot_unwrap",)),
    # Starts.
    Mutation(
        "life: start with a missing guardian",
        "It is tried five times, and the user reads Windows' words, not who could unwrap it.",
        "vtpm_vmops.py",
        "        if doubt is None:\n            super()",
        "        if True:\n            super()",
        (_LIFE + "test_a_start_of_what_the_fabric_cannot_unwrap_any_more",)),
    Mutation(
        "life: no reason after the host's boot",
        "The server is in error, and nothing says why.",
        "server_life.py",
        "            compute_utils.add_instance_fault_from_exc(context, instance, exc)\n",
        "",
        (_LIFE + "test_the_host_boots_and_cannot_unwrap",)),
    # Evacuations.
    Mutation(
        "life: evacuation of what another host runs",
        "Two hosts run one VM on the same disks: both are destroyed.",
        "server_life.py",
        "lambda: self._definition_away(instance),",
        "lambda: None,",
        (_EVACUATION + "test_files_that_are_in_use",)),
    Mutation(
        "life: evacuation to a host that is not guarded",
        "The server is moved, and does not start.",
        "server_life.py",
        """\
            Condition.GUARDED: self._unguarded,
            Condition.SAME_FABRIC: lambda: self._other_fabric(instance)}
""",
        """\
            Condition.GUARDED: lambda: None,
            Condition.SAME_FABRIC: lambda: None}
""",
        (_EVACUATION + "test_a_host_that_is_not_guarded",)),
    Mutation(
        "life: evacuation that fails deletes the definition",
        "The VM's definition and its TPM go with the planned VM: nothing is left to evacuate.",
        "compute_hyperv_driver.py",
        "        with self._definition_files(instance).kept_on_failure(), contextlib",
        "        with contextlib",
        (_EVACUATION + "test_each_step_fails_once",)),
    Mutation(
        "life: evacuation that fails deletes the disks",
        "The server's disks go, of which there is no other copy.",
        "compute_hyperv_driver.py",
        "                          destroy_disks=False)\n",
        "                          destroy_disks=True)\n",
        (_EVACUATION + "test_volumes",)),
    Mutation(
        "life: evacuation without volumes",
        "The VM has the disk numbers of the host that failed: another volume, or none.",
        "compute_hyperv_driver.py",
        "folder, image_meta, block_device_info)",
        "folder, image_meta,\n"
        "                                      {**block_device_info, 'block_device_mapping': []})",
        (_EVACUATION + "test_volumes",)),
    Mutation(
        "life: evacuation without network interfaces",
        "With ports that Nova itself plugs the server has no network.",
        "compute_hyperv_driver.py",
        "self._vmops.power_on(instance, network_info=network_info)\n\n        with",
        "self._vmops.power_on(instance)\n\n        with",
        (_EVACUATION + "test_network_interfaces",)),
    Mutation(
        "life: the host that returns deletes the definition",
        "The other host runs the VM: its definition and TPM are deleted under it.",
        "server_life.py",
        "            with self._definition_files(instance).kept():\n",
        "            with contextlib.nullcontext():\n",
        (_EVACUATION + "test_it_is_stopped_when_the_host_returns",)),
    Mutation(
        "life: the host returns before the evacuation",
        "Its VM is destroyed, and the evacuation finds nothing.",
        "server_life.py",
        "        elif instance.task_state in _EVACUATING and not",
        "        elif False and not",
        (_EVACUATION + "test_the_host_returns_before_it_is_evacuated",)),
    # A nova-compute that is killed, and files.
    Mutation(
        "life: killed in a resize",
        "nova-compute imports the VM once more, from files that are not there: it is in error.",
        "server_life.py",
        "            if interrupted and marks.is_marked(instance) and self._has_vm(instance):\n",
        "            if False:\n",
        (_LIFE + "test_dies_after_it_stopped_the_server",)),
    Mutation(
        "life: moved disks not put back",
        "Killed in a resize: the VM's disks are deleted with the folder they were moved to.",
        "definition_files.py",
        "            os.rename(source, target)\n",
        "            pass\n",
        (_FILES + "test_moved_files_come_back",)),
    Mutation(
        "life: older state put over newer",
        "The TPM goes back to what it was before: BitLocker asks for its recovery key.",
        "definition_files.py",
        "                if not os.path.exists(os.path.join(target, name)):\n",
        "                if True:\n",
        (_FILES + "test_what_was_written_meanwhile_stays",)),
    Mutation(
        "life: definition without its state",
        "A VM is imported whose TPM's contents are missing: it starts with an empty one.",
        "definition_files.py",
        """\
            # Windows refuses it while a host runs the VM.
            with open(guest_state, "r+b"):
                return None
""",
        """\
            return None
""",
        (_FILES + "test_what_cannot_be_imported",)),
    # Looked at before anything changes.
    Mutation(
        "life: evacuation refused too late",
        "Nova has moved the ports of a refused evacuation to the host that refused it.",
        "server_life.py",
        """\
            with self._told(instance, _rollback_to_here):
                self.require_evacuation(instance)
            return False
""",
        """\
            return False
""",
        (_EVACUATION + "test_a_refused_evacuation_leaves_the_ports_alone",)),
    Mutation(
        "life: any VM of the name evacuated",
        "A server is started as a VM with the TPM of who knows what.",
        "server_life.py",
        "            return self._misplaced(instance)\n        problem",
        "            return None\n        problem",
        (_EVACUATION + "test_a_vm_of_the_same_name_with_another_tpm",)),
    Mutation(
        "life: soft reboot of what cannot start",
        "A server that ran is off, and does not start again.",
        "server_life.py",
        """\
                with self._shown_to_user(context, instance, "vtpm_soft_reboot_check"):
                    self._require_next_start(instance)
""",
        "                pass\n",
        (_LIFE + "test_what_stops_a_server_to_start_it_again_is_not_begun",)),
    Mutation(
        "life: rescue of what cannot start",
        "A server that ran is off, and is not rescued.",
        "server_life.py",
        "        if instance.task_state == task_states.RESCUING:\n",
        "        if False:\n",
        (_LIFE + "test_what_stops_a_server_to_start_it_again_is_not_begun",)),
    Mutation(
        "life: a refused resume ends in ERROR",
        "A server that is suspended cannot be resumed when its host is guarded again.",
        "server_life.py",
        """\
        with self._told(instance, _rollback_to_here):
            super().resume(""",
        """\
        with self._told(instance):
            super().resume(""",
        (_LIFE + "test_a_resume_on_a_host_that_is_not_guarded_any_more",)),
    Mutation(
        "life: copies left by a dead process",
        "A VM that is off has no definition any more, since its old host was killed.",
        "server_life.py",
        "        definition_files.put_back_left_copies(self._vmops._pathutils.get_instances_dir(), "
        "host)\n",
        "",
        (_EVACUATION + "test_the_host_that_returns_is_killed_when_it_destroyed_its_vm",)),
    Mutation(
        "life: a refused rebuild keeps the new image",
        "The server's disk is connected to another image's base at its next move.",
        "vtpm_driver.py",
        """\
            if not kwargs.get("evacuate"):
                built_image.restore(context, instance, rebuilt=True)
""",
        "",
        (_LIFE + "test_a_refused_rebuild_leaves_the_server_its_image",)),
    Mutation(
        "life: image of a rebuild that did not come to the VM",
        "The server's disk is connected to another image's base at its next move.",
        "server_life.py",
        "            self.require_own_image(context, instance)\n",
        "",
        (_LIFE + "test_a_rebuild_that_ends_before_it_comes_to_the_vm",)),
    Mutation(
        "life: move with the image of a rebuild that did not come to the VM",
        "The server's disk is connected to another image's base, as Glance was away for a moment.",
        "server_life.py",
        "        if built_image.is_other(instance):\n",
        "        if False:\n",
        (_LIFE + "test_the_image_is_not_put_back_while_glance_is_away",)),
    Mutation(
        "life: move refused although the other host has the image",
        "A server whose image is gone is never resized, not even on its own host.",
        "server_life.py",
        "        if reason is None or paths.exists(paths.get_remote_path(dest, base)):\n",
        "        if reason is None:\n",
        (_LIFE + "test_the_other_host_has_the_image",)),
    Mutation(
        "life: properties of a refused rebuild on a volume",
        "The server's VM is made anew as the other image asks for it, and does not boot.",
        "built_image.py",
        "    if not is_other(instance) and not (rebuilt and image == \"\"):\n",
        "    if not is_other(instance):\n",
        (_LIFE + "test_a_refused_rebuild_of_a_server_that_boots_from_a_volume",)),
    Mutation(
        "life: revert asks Glance",
        "A server without an image cannot come back: its VM is destroyed, and the other not made.",
        "compute_hyperv_driver.py",
        "        return built_image.details(instance)\n\n\nclass MigrationOps",
        "        return super().get_image_details(context, instance)\n\n\nclass MigrationOps",
        (_LIFE + "test_the_image_goes_before_the_revert",
         _LIFE + "test_a_server_that_boots_from_a_volume",
         _LIFE + "test_dies_after_it_destroyed_the_vm")),
    Mutation(
        "life: end of a move asks Glance",
        "A server whose image is gone is destroyed on one host, and not made on the other.",
        "compute_hyperv_driver.py",
        " and instance.task_state != task_states.RESIZE_FINISH:\n",
        ":\n",
        (_LIFE + "test_a_disk_that_needs_no_image",)),
    Mutation(
        "life: move without the image below the disk",
        "The server is destroyed, and its disk lacks its base on the other host.",
        "server_life.py",
        "    if status == _ACTIVE:\n",
        "    if True:\n",
        (_LIFE + "test_a_move_after_the_image_is_gone",)),
    Mutation(
        "life: rescue with a checkpoint",
        "The server's disk is attached beside the checkpoint's, and its VM does not start.",
        "server_life.py",
        "        self._require_next_start(instance)\n        if marks.is_marked(instance):\n",
        "        self._require_next_start(instance)\n        if False:\n",
        (_LIFE + "test_a_rescue_with_a_checkpoint",)),
    Mutation(
        "life: checkpoint that is being merged",
        "A disk is moved without what is being merged into it.",
        "root_disk.py",
        """\
        return bool(self._utils.get_vm_snapshots(self._name)) or any(
            name.endswith(_DIFFERENCES) for name in self._attached())
""",
        "        return bool(self._utils.get_vm_snapshots(self._name))\n",
        (_LIFE + "test_a_resize_while_a_checkpoint_is_merged",)),
    Mutation(
        "life: files of what was deleted elsewhere",
        "A deleted server's disk, and its TPM's contents, stay on the host for ever.",
        "server_life.py",
        "        elif self._is_elsewhere(instance) and not instance.deleted:\n",
        "        elif self._is_elsewhere(instance):\n",
        (_LIFE + "test_it_is_deleted_where_nova_does_not_have_it",)),
    Mutation(
        "life: note that could not be forgotten",
        "What the server's VM was built from is not known any more, though it is there.",
        "built_image.py",
        "            undo.callback(instance.system_metadata.__setitem__, _KEY, image)\n",
        "",
        (_DRIVER + "test_a_rebuild_that_cannot_forget_leaves_the_note",)),
    Mutation(
        "life: resize with a checkpoint",
        "The disk below the checkpoint's is not copied: the server does not start there.",
        "server_life.py",
        "and not that below it.\n"
        "                    Condition.NO_CHECKPOINT: lambda: self._checkpoint(instance),\n",
        "and not that below it.\n"
        "                    Condition.NO_CHECKPOINT: lambda: None,\n",
        (_LIFE + "test_a_resize_with_a_checkpoint",)),
    Mutation(
        "life: evacuation with a checkpoint",
        "What was written since the checkpoint is lost.",
        "server_life.py",
        "\"\" if self._definition_files(instance).have_checkpoint() else None),",
        "None),",
        (_EVACUATION + "test_a_checkpoint",)),
    # The cluster.
    Mutation(
        "life: revert after a failover",
        "The files of a VM that runs on another node are deleted.",
        "server_life.py",
        "Condition.NO_FAILOVER: lambda: \"\" if self._is_elsewhere(instance) else None})",
        "Condition.NO_FAILOVER: lambda: None})",
        (_CLUSTERED + "test_a_revert_after_a_failover",)),
    Mutation(
        "life: a node that returns takes the group",
        "The cluster does not start the server elsewhere any more when its node fails.",
        "cluster_operations.py",
        "        if not self._is_on_another_node(instance):\n",
        "        if True:\n",
        (_CLUSTERED + "test_the_node_that_returns_leaves_the_group_of_the_evacuated_server",)),
    Mutation(
        "life: out of the cluster for good",
        "After a live migration that failed no other node starts the server when its own fails.",
        "compute_hyperv_cluster_driver.py",
        """\
        super().rollback_live_migration_at_source(context, instance, migrate_data)
        self._clops.add_again(instance)
""",
        """\
        super().rollback_live_migration_at_source(context, instance, migrate_data)
""",
        (_CLUSTER + "test_a_live_migration_out_of_the_cluster_that_fails",)),
    # What a rescue left in which nova-compute died.
    Mutation(
        "life: own disk not put back at a reboot",
        "The server runs without its root disk; its next move deletes it.",
        "server_life.py",
        "            with self.own_disk(instance):\n                if (marks",
        "            with contextlib.nullcontext():\n                if (marks",
        (_KILLED + "test_rescue",)),
    Mutation(
        "life: own disk not put back at a start",
        "The same, of a server that was stopped.",
        "server_life.py",
        "        with self._told(instance), self.own_disk(instance):\n            super().power_on",
        "        with self._told(instance):\n            super().power_on",
        (_KILLED + "test_start_after_an_interrupted_rescue",)),
    Mutation(
        "life: own disk not put back when the host boots",
        "The same, of a server that Nova starts again.",
        "server_life.py",
        "            with self._told(instance), self.own_disk(instance):\n",
        "            with self._told(instance):\n",
        (_KILLED + "test_host_boot_after_an_interrupted_rescue",)),
    Mutation(
        "life: own disk not put back in an evacuation",
        "The same, of a server that was evacuated.",
        "compute_hyperv_driver.py",
        "            with self.own_disk(instance):\n"
        "                self._vmops.power_on(instance, network_info=network_info)\n\n",
        "            with contextlib.nullcontext():\n"
        "                self._vmops.power_on(instance, network_info=network_info)\n\n",
        (_EVACUATION + "test_after_an_interrupted_rescue",)),
    Mutation(
        "life: the rescue's files deleted too early",
        "An evacuation that fails at its end fails for ever: a disk is missing.",
        "server_life.py",
        "        disk.put_back()\n        yield\n        disk.remove_rescue_files()\n",
        "        disk.put_back()\n        disk.remove_rescue_files()\n        yield\n",
        (_EVACUATION + "test_after_an_interrupted_rescue",)),
    Mutation(
        "life: a rescue ended by a start",
        "A server that is being rescued loses its rescue disk when its host boots.",
        "root_disk.py",
        "        return bool(self._instance.vm_state == vm_states.RESCUED\n",
        "        return bool(self._instance.vm_state == vm_states.DELETED\n",
        (_KILLED + "test_host_boot_of_a_rescued_server",)),
    Mutation(
        "life: a resize without the own disk",
        "The disk stays behind, and is deleted when the resize is confirmed.",
        "server_life.py",
        "                    Condition.OWN_DISK: lambda: self._lacks_own_disk(instance),\n"
        "                    Condition.IMAGE_THERE:",
        "                    Condition.OWN_DISK: lambda: None,\n"
        "                    Condition.IMAGE_THERE:",
        (_KILLED + "test_moves_after_an_interrupted_rescue",)),
    Mutation(
        "life: a live migration without the own disk",
        "Nova deletes the server's folder on the source, with the disk that stayed there.",
        "server_life.py",
        "                    Condition.OWN_DISK: lambda: self._lacks_own_disk(instance),\n"
        "                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})\n"
        "        return super().check_can_live_migrate_source",
        "                    Condition.OWN_DISK: lambda: None,\n"
        "                    Condition.CAN_UNWRAP: lambda: self._cannot_unwrap(instance)})\n"
        "        return super().check_can_live_migrate_source",
        (_KILLED + "test_moves_after_an_interrupted_rescue",)),
    Mutation(
        "life: the rescue disk left",
        "The driver refuses the next rescue of the server.",
        "root_disk.py",
        "                self._paths.remove(path)\n",
        "                pass\n",
        (_KILLED + "test_rescue",)),
    Mutation(
        "life: note outlives a rebuild",
        "A server whose rebuild with a vTPM failed is taken for one that is to have none.",
        "vtpm_driver.py",
        "            built_image.forget(instance)\n",
        "            pass\n",
        (_DRIVER + "test_a_rebuild_that_fails_leaves_no_note",)),
    Mutation(
        "life: mark taken from a VM that runs",
        "A TPM that nobody knows of: shelving destroys it.",
        "vtpm_driver.py",
        "        if instance.vm_state == vm_states.BUILDING or not self._has_vm(instance):\n",
        "        if True:\n",
        (_DRIVER + "test_a_rebuild_whose_end_cannot_be_noted",)),
)
