"""
    dispatch_barrier(f, arguments...; keywords...)

Return `f(arguments...; keywords...)`, a call that is dispatched at run time.

Compiled code is invalidated where it depends on a call for which another package adds a method
(<https://julialang.org/blog/2020/08/invalidations/>). PythonCall adds such methods, for JSON's parser, `join` and NNlib's
fallbacks among others: whatever calls these with arguments of unknown type is compiled anew in each process. Behind this barrier
the callers that were compiled with the package stay valid.
"""
dispatch_barrier(f, arguments...; keywords...) = Base.inferencebarrier(f)(arguments...; keywords...)
