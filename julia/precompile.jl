# One tiny real training of each kind of chain, so that a user's first step does not wait for the compiler; of images that
# are wide enough for every way of convolution.
@setup_workload begin
    images = rand(Xoshiro(1), UInt8, 2LANES, 8, 3, 8)
    split = UInt8[0, 0, 0, 0, 1, 1, 2, 2]
    @compile_workload begin
        recipes = [variant.(("l2", "dropout", "dense_l2", "mlp"))...; variant("mlp"; loss="squared_error")]
        for classes in (2, 3), v in recipes
            labels = Int32[mod(i, classes) for i in 1:8]
            data = PreparedDataset(images, labels, split, string.(1:classes), "precompile", "")
            run = train(v, data; epochs=1, batch_size=3, balance="augment")
            evaluate(run, data)
            predict(run, images)
        end
    end
end
