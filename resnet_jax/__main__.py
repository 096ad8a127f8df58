"""List the commands: python -m resnet_jax."""

from resnet_jax.run.output import keep_running

COMMANDS = {
    "train": "train a network; the same command goes on where the run stopped",
    "evaluate": "measure a run's newest checkpoint on its whole test split",
    "predict": "say what a run's newest checkpoint sees in image files",
    "describe": "say what a config's network is and what it costs, without data",
    "check_data": "read every example of a data set, and say what is wrong with any",
    "convert": "import another library's weights as a run, or export a run's weights",
}


def main() -> None:
    """Print the commands with their purposes."""
    keep_running()
    print("Commands; --help of each has its flags and an example, and the keys of its --config:\n")
    for name, purpose in COMMANDS.items():
        print(f"    python -m resnet_jax.{name:<12}{purpose}")
    print("\nExperiments, from the repository's folder:\n\n    python -m experiments")


if __name__ == "__main__":
    main()
