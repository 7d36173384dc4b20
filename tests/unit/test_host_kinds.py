"""Many hosts at once: the same answer as one by one."""

import hypothesis
from hypothesis import strategies as st
from nova import objects
from nova.scheduler import host_manager

from vtpm_scheduling import host_kinds, policy

objects.register_all()

VERSIONS = st.sampled_from([6003, 10000, 11000])
# Of the aggregates below.
IN_AGGREGATES = st.sets(st.integers(0, 4))
BARE = st.tuples(st.sampled_from(["hyperv", "HyperV", "QEMU", None]),
                 st.one_of(st.none(), VERSIONS),
                 st.sampled_from([{}, {"num_instances": "1"}, {policy.STAT_REPORT: ""}]),
                 IN_AGGREGATES)


@st.composite
def reporting(draw):
    """A host with the vTPM driver: Hyper-V, and its report says the version that Nova has."""
    version = draw(VERSIONS)
    report = policy.HostReport(
        draw(st.booleans()), version, draw(st.sampled_from([None, 100, 301, 77])),
        draw(st.one_of(st.none(), st.text(max_size=3))),
        draw(st.sampled_from([None, "ab" * 32, "cd" * 32])), draw(st.sampled_from([1, 2])))
    return "hyperv", version, report.to_stats(), draw(IN_AGGREGATES)


HOSTS = st.lists(st.one_of(BARE, reporting()), max_size=12)
METADATA = [{"hgs_fabric": "one"}, {"hgs_fabric": "one", "ssd": "true"}, {"hgs_fabric": "two"},
            {"ssd": "true"}, {}]


def host_states(described):
    """Nova's own, with aggregates as its host manager gives them."""
    states = []
    for number, (hypervisor_type, version, stats, _) in enumerate(described):
        state = host_manager.HostState("host%d" % number, "node%d" % number, "cell")
        state.hypervisor_type, state.hypervisor_version = hypervisor_type, version
        state.stats = stats
        states.append(state)
    for number, metadata in enumerate(METADATA):
        members = [state for state, (*_, in_aggregates) in zip(states, described)
                   if number in in_aggregates]
        aggregate = objects.Aggregate(
            id=number, name="aggregate%d" % number, metadata=metadata,
            hosts=[state.host for state in members])
        for state in members:
            state.aggregates.append(aggregate)
    return states


def one_by_one(state):
    """A host as the policy sees it, read by itself."""
    return policy.HostFacts(
        state.hypervisor_type, state.hypervisor_version,
        policy.HostReport.from_stats(state.stats),
        frozenset(aggregate.metadata["hgs_fabric"] for aggregate in state.aggregates
                  if "hgs_fabric" in aggregate.metadata))


@hypothesis.given(HOSTS, st.booleans(), st.sampled_from([
    None, policy.Home("ab" * 32), policy.Home(None, "one"), policy.Home()]))
def test_same_answer_as_one_by_one(described, require_aggregate, home):
    states = host_states(described)
    mixed = policy.mixed_fabrics(map(one_by_one, states))
    kinds, facts = host_kinds.sort(states)
    assert len(kinds) == len(states)
    assert set(kinds) == set(range(len(facts)))
    assert policy.mixed_fabrics(facts) == mixed
    for state, kind in zip(states, kinds):
        assert (policy.misfit(facts[kind], home, require_aggregate, mixed)
                == policy.misfit(one_by_one(state), home, require_aggregate, mixed))


def test_each_of_many_hosts_has_its_own_kind():
    """In their order, and none left out, where not all are read in one go."""
    described = [("hyperv", 10000 + number % 7, {}, {number % 5})
                 for number in range(2 * host_kinds._IN_A_CACHE + 1)]
    states = host_states(described)
    kinds, facts = host_kinds.sort(states)
    assert [facts[kind] for kind in kinds] == [one_by_one(state) for state in states]


def test_hosts_alike_are_one_kind():
    stats = policy.HostReport(True, 10000, 100, "2026-01-01T00:00:00", "ab").to_stats()
    later = policy.HostReport(True, 10000, 100, "2026-01-01T00:00:59", "ab").to_stats()
    kinds, facts = host_kinds.sort(host_states([
        ("hyperv", 10000, stats, {0, 3}), ("hyperv", 10000, later, {1})]))
    assert kinds == [0, 0]
    assert facts == [policy.HostFacts(
        "hyperv", 10000, policy.HostReport(True, 10000, 100, None, "ab"), frozenset({"one"}))]


@hypothesis.given(st.text(max_size=20))
def test_a_report_that_cannot_be_read_is_none(text):
    _, (facts,) = host_kinds.sort(host_states([
        ("hyperv", 10000, {policy.STAT_REPORT: text or "x"}, {0})]))
    assert policy.misfit(facts).code == policy.MisfitCode.NO_REPORT
