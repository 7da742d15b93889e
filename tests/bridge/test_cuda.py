import pytest
from packages import needs
from worker_groups import run_group

from elastune.experiments.real.trainables import WorkloadTrainables
from elastune.sim.bridge.workers import process_group
from elastune.sim.bridge.workers.worker import Assignment, Finished, SegmentWorker, WorkerSettings
from elastune.traces.workloads import Seat, workload_named

torch = pytest.importorskip("torch", reason="the bridge extra is not installed")
needs("sklearn")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CONFIGURATION = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "hidden_layers": 2,
    "width": 32,
    "dropout": 0.0,
    "init_scale": 1.0,
}


def train(meeting, folder, device, until, restore_from):
    assignment = Assignment(
        trial=0,
        segment=0,
        from_iteration=0 if restore_from is None else until - 3,
        until_iteration=until,
        report_every=1,
        checkpoint_every=0,
        restore_from=restore_from,
        configuration=CONFIGURATION,
        rank=meeting.rank,
        nodes=1,
        size=meeting.size,
    )
    worker = SegmentWorker(WorkerSettings(WorkloadTrainables("digits-mlp", 3), folder, device), assignment)
    address = None
    if meeting.size > 1:
        address = meeting.at(worker.rendezvous() if meeting.rank == 0 else None)
    return list(worker.train(address))


def scores(messages):
    return [message.score for message in messages[1:]]


def test_training_on_a_device_has_the_curve_of_the_processor_and_its_checkpoints_serve_both(tmp_path):
    [on_cpu] = run_group(1, train, str(tmp_path / "cpu"), "cpu", 3, None)
    [on_cuda] = run_group(1, train, str(tmp_path / "cuda"), "cuda", 3, None)
    assert scores(on_cuda) == pytest.approx(scores(on_cpu), abs=3 / 600)

    [cpu_after_cuda] = run_group(1, train, str(tmp_path / "cuda"), "cpu", 6, 0)
    [cuda_after_cpu] = run_group(1, train, str(tmp_path / "cpu"), "cuda", 6, 0)
    assert cpu_after_cuda[0].from_iteration == cuda_after_cpu[0].from_iteration == 3
    assert scores(cuda_after_cpu) == pytest.approx(scores(cpu_after_cuda), abs=3 / 600)
    assert isinstance(cuda_after_cpu[-1], Finished)


def agree_by_nccl(meeting):
    listening = process_group.listen("127.0.0.1")
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    with process_group.form_group(meeting.rank, 1, "cuda", address, listening) as group:
        from elastune.traces.training.gradients import GangMember

        network = torch.nn.Linear(64, 10).cuda()
        member = GangMember(network, Seat(0, 1, device="cuda"))
        loss = member.backward(torch.ones(3, 64).cuda(), torch.tensor([1, 2, 3]).cuda())
        gradient = network.weight.grad.clone()
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.ones(3, 64).cuda()), torch.tensor([1, 2, 3]).cuda()).backward()
        return (
            group.agree(5),
            group.all_of(is_true=True),
            float(loss),
            float((gradient - network.weight.grad).abs().max()),
        )


def test_a_worker_group_of_one_agrees_and_adds_up_by_nccl():
    [(agreed, is_true_for_all, loss, error)] = run_group(1, agree_by_nccl)

    assert (agreed, is_true_for_all) == (5, True)
    assert loss > 0
    assert error < 1e-6


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are fewer than two CUDA devices")
def test_two_devices_have_the_curve_of_one(tmp_path):
    [alone] = run_group(1, train, str(tmp_path / "alone"), "cuda", 5, None)
    together, others = run_group(2, train, str(tmp_path / "together"), "cuda", 5, None)

    assert scores(together) == pytest.approx(scores(alone), abs=3 / 600)
    assert others == []


def train_epoch(seat):
    trainable = workload_named("digits-mlp").build({**CONFIGURATION, "dropout": 0.5}, 5, seat)
    trainable.train_iteration()
    return trainable.training_loss


def test_equal_seeds_give_equal_losses_on_a_device_and_leave_the_random_state_alone():
    before = torch.cuda.get_rng_state()
    first, second = (train_epoch(Seat(device="cuda")) for _ in range(2))

    assert first == second
    assert torch.equal(torch.cuda.get_rng_state(), before)
