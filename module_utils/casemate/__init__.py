"""Pure, typed, standard-library-only logic that Casemate runs on targets (Python >= 3.9)."""
