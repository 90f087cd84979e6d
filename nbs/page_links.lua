-- Above every page that is a notebook: a link that opens it in Colab, with what to run there first, and one to its source.
local repository, branch = 'https://github.com/stpt2imc/stpt2imc', 'main'

local function notebook()
  local file = quarto and quarto.doc and quarto.doc.input_file or ''
  file = file:gsub('\\', '/')
  return file:match('/_proc/(.+%.ipynb)$') or file:match('/nbs/(.+%.ipynb)$')
end

function Pandoc(doc)
  local name = notebook()
  if not name or not quarto.doc.is_format('html') then return nil end
  local colab = repository:gsub('https://github.com/', 'https://colab.research.google.com/github/') .. '/blob/' .. branch .. '/nbs/' .. name
  local folder = name:match('^(.*)/[^/]+$')
  local first = '!git clone -q --depth 1 ' .. repository .. ' && pip install -q ./stpt2imc'
  local second = '%cd stpt2imc/nbs' .. (folder and '/' .. folder or '')
  local links = pandoc.Para({
    pandoc.Link('Open in Colab', colab), pandoc.Str(' · '), pandoc.Link('Source', repository .. '/blob/' .. branch .. '/nbs/' .. name)})
  local how = pandoc.RawBlock('html', '<details><summary>First cell in Colab</summary>')
  doc.blocks:insert(1, pandoc.Div({links, how, pandoc.CodeBlock(first .. '\n' .. second), pandoc.RawBlock('html', '</details>')}, pandoc.Attr('', {'page-links'})))
  return doc
end
