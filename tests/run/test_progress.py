"""progress: times in words."""

from negint.run.progress import duration


def test_times_are_said_as_a_person_says_them():
  said = [duration(seconds) for seconds in (0.5, 42.4, 100, 3000, 10_000, 400_000)]
  assert said == ["0.5 s", "42 s", "1 min 40 s", "50 min", "2.8 hours", "4.6 days"]
