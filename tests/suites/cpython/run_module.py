"""Runs modules of CPython's own regression tests and writes one line of JSON for each case, as soon as it is known.

    python3 run_module.py RESULTS MODULE [ARGUMENT...]

The tests run in this process, as `python3 -m test MODULE ARGUMENT...` would run them. Lines of RESULTS:

    {"case": "test.test_os.FileTests.test_access", "outcome": "started"}
    {"case": "test.test_os.FileTests.test_access", "outcome": "passed"}

Other outcomes are "failed" and "skipped", with the reason as "text". A case that fails as the tests' authors
expect has passed. Of a case with several lines the worst counts: a subtest that fails has a line of its own.
"""

import json
import os
import sys


def record(path):
    """Makes the result class of CPython's tests write to the file `path`."""
    from test.support import testresult

    results = open(path, "a", buffering=1)
    owner = os.getpid()

    class Recorder(testresult.RegressionTestResult):
        def line(self, test, outcome, text=None):
            # A child that a case has forked may come here too, when an exception carries it out of the case.
            if os.getpid() != owner:
                return
            entry = {"case": test.id(), "outcome": outcome}
            if text is not None:
                entry["text"] = text[-4000:]
            results.write(json.dumps(entry) + "\n")

        def failure(self, test, error):
            self.line(test, "failed", self._exc_info_to_string(error, test))

        def startTest(self, test):
            super().startTest(test)
            self.line(test, "started")

        def addSuccess(self, test):
            super().addSuccess(test)
            self.line(test, "passed")

        def addExpectedFailure(self, test, error):
            super().addExpectedFailure(test, error)
            self.line(test, "passed")

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self.line(test, "failed", "unexpected success")

        def addFailure(self, test, error):
            super().addFailure(test, error)
            self.failure(test, error)

        def addError(self, test, error):
            super().addError(test, error)
            self.failure(test, error)

        def addSubTest(self, test, subtest, error):
            super().addSubTest(test, subtest, error)
            if error is not None:
                self.failure(test, error)

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.line(getattr(test, "test_case", test), "skipped", reason)

    testresult.RegressionTestResult = Recorder


if __name__ == "__main__":
    record(sys.argv[1])
    sys.argv[1:] = sys.argv[2:]
    from test import libregrtest

    libregrtest.main()
