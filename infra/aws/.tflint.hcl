# The built-in rules of tflint. Its rules for AWS are a plug-in, and `tofu validate` checks the schemas of providers.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Resources are in one file per topic instead of main.tf.
rule "terraform_standard_module_structure" {
  enabled = false
}
