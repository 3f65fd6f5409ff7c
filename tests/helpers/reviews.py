"""Texts of which a tiny model can learn something, and files of them."""

import csv
from pathlib import Path


ROOT = Path(__file__).parents[2]

WORDS = (
    "good great fine lovely superb bad awful poor dreadful boring film movie story plot acting the a was is it very "
    "not and but so really of in to this that one two three four five six"
).split()
POSITIVE, NEGATIVE = WORDS[:5], WORDS[5:10]
# The start of NSMC's file: tab-separated, with quotation marks that quote nothing.
NSMC = (
    "id\tdocument\tlabel\n"
    '9976970\t아 더빙.. 진짜 "짜증나네요 목소리\t0\n'
    '3819312\t"흠...포스터보고 초딩영화줄....오버연기조차 가볍지 않구나\t1\n'
    '10265843\t""너무재밓었다""그래서보는것을추천한다\t0\n'
    "9045019\t교도소 이야기구먼 ..솔직히 재미는 없다, 평점 조정\t0\n"
    '6483659\t"사이몬페그의 익살스런 연기가 돋보였던 영화"\t1\n'
)


def review(index: int) -> tuple[str, str]:
    """A text whose words tell its label, and whose length differs from its neighbours'."""
    words = POSITIVE if index % 2 else NEGATIVE
    length = 3 + (index * 7) % 11
    filler = WORDS[10:]
    text = " ".join(
        words[(index + i) % 5] if i % 3 == 0 else filler[(index * 5 + i * 3) % len(filler)] for i in range(length)
    )
    return f"{text} {index}", "pos" if index % 2 else "neg"


def write_reviews(path: Path, rows: int, start: int = 0, header: bool = True) -> Path:
    """A csv of `rows` reviews with the columns text and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["text", "label"])
        writer.writerows(review(start + index) for index in range(rows))
    return path


def write_pairs(path: Path, rows: int = 24) -> Path:
    """A csv of pairs with the columns premise, hypothesis and label."""
    lines = [f"good film {row},bad plot,{'yes' if row % 2 else 'no'}" for row in range(rows)]
    path.write_text("\n".join(["premise,hypothesis,label", *lines]) + "\n", encoding="utf-8")
    return path
