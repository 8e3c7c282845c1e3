"""
    apart(f, arguments...)

Return `f(arguments...)` in a call that is looked up while it runs.

Methods of another package, such as PythonCall, can make Julia compile anew what calls them with arguments of unknown type: JSON's
parser, `join`, NNlib's fallbacks. Called this way, these take along no function of ours that was compiled with the package.
"""
apart(f, arguments...; kwargs...) = Base.inferencebarrier(f)(arguments...; kwargs...)
