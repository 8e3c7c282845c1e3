# What the two Julia sides of run.py share. Each line of input is a case or a number of repetitions; each answer is a line
# that starts with "@ ".

# KIND VARIANT WIDTH HEIGHT CHANNELS BATCH CLASSES
function shape(words)
    w, h, c, batch, classes = parse.(Int, words)
    return (w, h, c), batch, classes
end

function material(input, batch, classes)
    x = Float32[mod(37i, 256) for i in 1:(prod(input) * batch)]
    return reshape(x, input..., batch), Int32.(mod.(1:batch, classes))
end

# Of this process, MB: VmRSS now, VmHWM at its highest.
function resident(name)
    line = only(filter(startswith(name), readlines("/proc/self/status")))
    return parse(Int, split(line)[2]) / 1024
end

function serve(@nospecialize(measure))
    call = nothing
    for line in eachline(stdin)
        words = split(line)
        if first(words) == "case"
            # The case before must not count in this one's memory.
            call = nothing
            GC.gc()
            call = measure(string(words[2]), string(words[3]), string.(words[4:end]))
            println("@ ready")
        elseif first(words) == "peak"
            println("@ ", resident("VmHWM"))
        else
            result = nothing
            seconds = @elapsed for _ in 1:parse(Int, only(words))
                result = Base.invokelatest(call)
            end
            println("@ ", seconds, ' ', result)
        end
        flush(stdout)
    end
end
