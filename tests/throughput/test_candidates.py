from dogs_accel.datasets.photos import find_photos
from dogs_accel.throughput.candidates import Workload, load_epoch, project_candidates
from pipelines import BACKENDS, EVAL


def test_a_loader_of_the_project_loads_the_workload(dogs_root, tmp_path):
    workload = Workload(paths=tuple(find_photos(dogs_root, 6)), recipe=EVAL.at(32), batch_size=4, num_threads=1)
    for candidate in project_candidates(BACKENDS, tmp_path):
        loader = candidate.make(workload)
        load_epoch(loader, workload)
        assert loader.batch_size == 4
        assert loader.num_threads == 1
        loader.close()
