"""Time and peak memory of every chapter, each executed in its own process: python
benchmarks/chapters.py"""

import multiprocessing
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from references import chapters, execute


def measure(chapter: Path, queue) -> None:
    start = time.perf_counter()
    execute(chapter)
    # the kernel is a child of this process
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    queue.put((time.perf_counter() - start, peak))


def main() -> None:
    print("| chapter | seconds | peak MB |\n|---|---|---|")
    for chapter in chapters():
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=measure, args=(chapter, queue))
        process.start()
        seconds, peak = queue.get()
        process.join()
        print(f"| {chapter.stem} | {seconds:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
