"""``python -m unweave``, which is how torchrun starts it."""

from unweave.cli.main import main

if __name__ == "__main__":
    main()
