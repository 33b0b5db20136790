"""Processor seconds, seconds and peak memory of chapters, each executed in a process of its own,
with one BLAS thread as in `make book`: python benchmarks/chapters.py [NAME ...]

Others on the machine change the seconds of the clock and hardly those of the processor."""

import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import chapters, execute


def measure(chapter: Path, queue) -> None:
    start = time.perf_counter()
    execute(chapter)
    # the kernel is a child of this process
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    queue.put((used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024))


def main() -> None:
    print("| chapter | processor s | seconds | peak MB |\n|---|---|---|---|")
    names = sys.argv[1:]
    for chapter in chapters():
        if names and chapter.stem not in names:
            continue
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=measure, args=(chapter, queue))
        process.start()
        numbers = " | ".join(f"{number:.1f}" for number in queue.get())
        process.join()
        print(f"| {chapter.stem} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
