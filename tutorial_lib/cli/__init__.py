"""The command line for long runs: `python -m tutorial_lib COMMAND`. Each command puts the library's functions together.

main.py           all commands; what goes wrong, in a sentence
options.py        an option from the command line, or from a TOML file
train.py          train METHOD: from a folder of pictures to a folder of weights
train_options.py  its options, and what they are where they are not given
methods.py        what each method trains, and how its weights are saved
data.py           pictures, captions, pictures of the class, pairs for a control
output.py         the output folder: never overwritten, whole or not there
card.py           the model card beside the weights
weights.py        what a folder or file of weights is, and how it gets into a pipeline
generate.py       pictures from a base model and any of those weights
merge.py          concepts into one, or an adapter into a plain pipeline
convert.py        from one program's format to another's
pretrain.py       the pocket model from nothing
"""
