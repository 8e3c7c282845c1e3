# Does with Flux what the first document does, line by line, and prints each outcome in one JSON object.
# A script for test_errata.py.
using PhotoFlux: JSON

# What the document has in scope: Flux's exports. Packages that it does not load are not loaded here.
module Document
using PhotoFlux.Flux

const outcomes = Dict{String,Any}()
record(f, name) = outcomes[name] = try f() catch err; string(nameof(typeof(err))) end

net() = Chain(Dense(2 => 3, relu), Dropout(0.5), Dense(3 => 10))
const x = Float32[0.1 0.2 0.3; 0.4 0.5 0.6]

record("ReLULayer") do; ReLULayer() end
record("SoftmaxLayer") do; SoftmaxLayer() end
record("Dropout keyword") do; Dropout(p=0.2) end
record("×") do; 0.5×2.0 end
record("mean") do; mean([1.0, 2.0]) end
record("square") do; square(2.0) end
record("accuracy") do; accuracy(net()(x), [1, 2, 3]) end
record("x and y") do; undefined_model(undefined_x) - undefined_y end
record("parameters") do; net().parameters() end
record("ADAM keyword") do; ADAM(lr=0.0001) end
record("loss is a number") do; lossfunc = 0.5; lossfunc(x, net()) end
record("images with labels") do; net()((features=x, targets=[6, 9, 9])) end
record("images into 768") do; Dense(768 => 512)(zeros(Float32, 32, 32, 3, 2)) end
record("columns into 768") do; Dense(768 => 512)(zeros(Float32, 3072, 2)) end
record("columns into 3072") do; size(Dense(3072 => 512)(zeros(Float32, 3072, 2))) end
record("labels as numbers") do; net()(x) - [6, 9, 9] end
record("power of a matrix") do; net()(x)^2 end
record("power of a square matrix") do; ones(2, 2)^2 == fill(2.0, 2, 2) end

squares(model, inputs...) = sum(abs2, model(x))

record("train! returns") do
    model = net()
    string(Flux.train!(squares, model, [(x,)], Flux.setup(Adam(), model)))
end
record("train! walks over") do
    model, seen = net(), Any[]
    function loss(model, inputs...)
        Flux.ChainRulesCore.ignore_derivatives(() -> push!(seen, [collect(size(input)) for input in inputs]))
        return sum(abs2, model(x))
    end
    data = (features=zeros(Float32, 32, 32, 3, 7), targets=zeros(Int, 7))
    Flux.train!(loss, model, data, Flux.setup(Adam(), model))
    seen
end
record("a rule forgets its moments") do
    first_, second = (model = Chain(Dense(2 => 3)); (model, deepcopy(model)))
    foreach(_ -> Flux.train!(squares, first_, [(x,)], Adam(0.1)), 1:3)
    state = Flux.setup(Adam(0.1), second)
    foreach(_ -> Flux.train!(squares, second, [(x,)], state), 1:3)
    first_[1].weight != second[1].weight
end
record("dropout after train!") do
    model = net()
    Flux.train!(squares, model, [(x,)], Flux.setup(Adam(), model))
    draws = [model(x) for _ in 1:20]
    [model[2].active, !allequal(draws)]
end
end

println(JSON.json(Document.outcomes))
