"""The benchmark suites, one module each: ``rows(job, settings)`` yields what was measured."""
